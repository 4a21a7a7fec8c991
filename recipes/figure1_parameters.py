"""Parameters against base channels and image size: Neyshabur 2020, Figure 1, right; no training.

    python recipes/figure1_parameters.py               seconds, any machine
    python recipes/figure1_parameters.py --base-channels 15 150 --image-sizes 32 64 --classes 100

Target: exact counts of the layers beside the formulas of Tables 3 and 4. The S family's formulas
are exact for even image sizes (α = 150: 138.3 M, 147.6 M, 256.2 M); the D family's are approximate,
and D-LOCAL's is not its own (α = 15: 11.7 M weights in the convolutions' place).
"""

from tfconvbias import studies, training

CONFIG = studies.neyshabur2020.ParameterScaling()

DEMO = {"run_dir": "runs/figure-1-parameters-demo"}

if __name__ == "__main__":
    training.main(
        CONFIG, studies.neyshabur2020.report_parameter_scaling, description=__doc__, demo=DEMO
    )
