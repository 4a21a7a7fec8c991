"""Rows, widths and neighbours of the paper's tables; studies over data sets and seeds."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hostile import PRINTABLE, check_harmless

from tfconvbias import data, studies, training
from tfconvbias.studies.neyshabur2020 import (
    TABLE_1,
    TABLE_2,
    KernelSizeStudy,
    PaperTable,
    PermutationStudy,
    WidthStudy,
    paper_targets,
    parameter_counts,
)
from tfconvbias.studies.neyshabur2020.width_study import over_parameterised

DEFINITIONS = {
    "D-FC": {"family": "d", "connectivity": "dense"},
    "S-FC": {"family": "s", "connectivity": "dense"},
    "S-FC β=50": {"family": "s", "connectivity": "dense", "optimizer": "beta_lasso", "beta": 50.0},
    "3-FC": {"family": "three_fc", "connectivity": "dense"},
}
TARGETS = {
    "D-FC": {},
    "S-FC": {"cifar10": {400: 72.77, 4000: 78.63}},
    "S-FC β=50": {"cifar10": {4000: 85.19}},
    "3-FC": {},
}
TABLE = PaperTable(
    run=training.RunConfig(base_channels=150, epochs=400),
    definitions=DEFINITIONS,
    targets=TARGETS,
    rows=tuple(DEFINITIONS),
)


def result(study, accuracy, seed=0):
    row = {
        "epochs": study.run.epochs,
        "seed": seed,
        "width": 4,
        "kernel_parameters": {"conv1": 100},
        "nonzeros": {"conv1": 60},
        "val_accuracy": 0.5,
        "train_accuracy": 0.9,
        "best_epoch_test_accuracy": 0.6,
        "test_accuracy": accuracy,
    }
    history = {"epoch": [1], "loss": [1.0], "accuracy": [0.5], "val_accuracy": [0.5]}
    return training.RunResult(training.RunFolder("nowhere"), row, history)


def only_row(table, row, dataset, *accuracies):
    results = {studies.Cell(row, dataset): [result(table, a, s) for s, a in enumerate(accuracies)]}
    (shown,) = table.findings(results).tables[""]
    return shown


def test_the_difference_is_measured_minus_published_at_the_same_epochs():
    shown = only_row(TABLE, "S-FC", "cifar10", 0.73)
    assert shown["test, %"] == "73.00"
    assert shown["paper, 400 epochs"] == "72.77"
    assert shown["paper, 4000 epochs"] == "78.63"
    assert shown["difference"] == "+0.23"
    longer = TABLE.replace(epochs=4000)
    assert only_row(longer, "S-FC", "cifar10", 0.73)["difference"] == "-5.63"


@pytest.mark.parametrize(
    "changes", [{"epochs": 399}, {"num_train": 100}, {"permute_pixels": 3}], ids=str
)
def test_unlike_runs_get_no_difference_but_keep_the_published_figures(changes):
    shown = only_row(TABLE.replace(**changes), "S-FC", "cifar10", 0.73)
    assert shown["difference"] == "–"
    assert shown["paper, 400 epochs"] == "72.77"


def test_a_row_that_the_paper_has_after_4000_epochs_only():
    shown = only_row(TABLE, "S-FC β=50", "cifar10", 0.73)
    assert (shown["paper, 400 epochs"], shown["difference"]) == ("–", "–")


@pytest.mark.parametrize("dataset", ["motifs10", "pictures/cifar10", "/pictures/svhn/"])
def test_stand_in_data_has_no_published_neighbour(dataset):
    assert not [name for name in only_row(TABLE, "S-FC", dataset, 0.5) if "paper" in name]
    study = KernelSizeStudy(datasets=(dataset,), kernel_sizes=(3,))
    row = next(iter(study.variants()))
    found = study.findings({studies.Cell(row, dataset): [result(study, 0.5)]})
    assert "paper" not in str(found)
    (axis,) = found.figures["kernel size"][1].axes
    assert len(axis.get_lines()) == 1


def conclusion(study, accuracies):
    """What a study says of runs with these test accuracies, by row."""
    runs = {studies.Cell(row, "motifs10"): [result(study, a)] for row, a in accuracies.items()}
    return " ".join(study.findings(runs).conclusion)


def test_each_study_answers_its_own_question():
    sizes = {"3×3 kernels, SGD": 0.9, "5×5 kernels, SGD": 0.7}
    lasso = {"3×3 kernels, β-LASSO": 0.8, "5×5 kernels, β-LASSO": 0.85}
    assert conclusion(KernelSizeStudy(kernel_sizes=(3, 5)), sizes | lasso) == (
        "Test accuracy on motifs10 from 3×3 to 5×5 kernels: SGD from 90.00 to 70.00 %, "
        "β-LASSO from 80.00 to 85.00 %."
    )
    pixels = {"S-FC, SGD, pixels in place": 0.5, "S-FC, SGD, pixels permuted": 0.52}
    pixels |= {"S-CONV, SGD, pixels in place": 0.9, "S-CONV, SGD, pixels permuted": 0.4}
    assert conclusion(PermutationStudy(), pixels) == (
        "Permuting the pixels of motifs10 changes the test accuracy of S-FC, SGD by +2.00 points, "
        "of S-CONV, SGD by -50.00 points."
    )
    widths = {"S-CONV 2": 0.5, "S-CONV 1": 0.4, "3-FC 3": 0.3}
    assert conclusion(WidthStudy(train_accuracy=90.0), widths) == (
        "90 % training accuracy on motifs10 is reached by S-CONV with 100 kernel weights or more "
        "(best test accuracy 50.00 %), by 3-FC with 100 (30.00 %)."
    )
    assert conclusion(WidthStudy(train_accuracy=91.0), widths) == (
        "No member trained on motifs10 reaches 91 % training accuracy."
    )


def test_several_seeds_are_averaged():
    shown = only_row(TABLE, "S-FC", "cifar10", 0.72, 0.74)
    assert shown["test, %"] == "73.00 ± 1.41"
    assert shown["seeds"] == "0, 1"
    assert shown["difference"] == "+0.23"


def test_an_unknown_row_lists_the_valid_ones():
    with pytest.raises(training.ConfigError, match=r"no row S-FOO.*D-FC \(d-fc\).*s-fc-beta-50"):
        TABLE.replace(rows=("S-FC", "S-FOO"))
    with pytest.raises(training.ConfigError, match="each once"):
        TABLE.replace(rows=("S-FC", "s-fc"))


def test_rows_are_known_by_their_folder_names_and_keep_the_tables_order():
    chosen = TABLE.replace(rows=("s-fc-beta-50", "d-fc"))
    assert list(chosen.variants()) == ["D-FC", "S-FC β=50"]
    assert chosen.variants()["S-FC β=50"]["beta"] == 50.0


def test_widths_follow_the_papers_unless_given():
    runs = {cell.row: config for cell, config in TABLE.runs().values()}
    assert runs["S-FC"].base_channels == 150
    assert runs["D-FC"].base_channels == 15
    assert 14_500 < runs["3-FC"].hidden_units < 14_600
    given = TABLE.replace(base_channels=2, d_base_channels=3, three_fc_units=7)
    runs = {cell.row: config for cell, config in given.runs().values()}
    widths = (
        runs["S-FC"].base_channels,
        runs["D-FC"].base_channels,
        runs["3-FC"].hidden_units,
    )
    assert widths == (2, 3, 7)


def test_published_tables_agree_where_they_overlap():
    assert paper_targets.TABLE_1["S-FC"]["cifar100"] == {400: 47.72, 4000: 51.43}
    assert paper_targets.TABLE_2["S-FC β=50"]["svhn"] == {4000: 94.07}
    for row in ("S-CONV", "S-LOCAL", "3-FC", "S-FC"):
        assert paper_targets.TABLE_2[f"{row} SGD"] == paper_targets.TABLE_1[row]


def test_published_curves_equal_the_file_they_were_read_from():
    path = Path(os.environ.get("TFCONVBIAS_SHARED_DATA", "")) / "neyshabur2020_figures.json"
    if not path.is_file():
        pytest.skip("TFCONVBIAS_SHARED_DATA names no folder with neyshabur2020_figures.json")
    file = json.loads(path.read_text())
    names = {"CIFAR-10": "cifar10", "CIFAR-100": "cifar100", "SVHN": "svhn"}
    sizes = file["figure5_resnet18"]["kernel_sizes"]
    for theirs, ours in names.items():
        for optimizer, values in file["figure5_resnet18"][theirs].items():
            expected = dict(zip(sizes, values, strict=True))
            assert paper_targets.FIGURE_5[ours][optimizer] == expected
        counts = list(paper_targets.FIGURE_3_NONZEROS[ours].values())
        assert counts == file["figure3_nnz"]["final"][theirs]
    implied = file["figure3_nnz"]["implied"]
    expected = [implied[f"layer{n}_size"] for n in (1, 2, 3)]
    assert list(paper_targets.FIGURE_3_LAYERS.values()) == expected


def test_formulas_of_the_s_family_are_exact_and_d_locals_is_not_its_own():
    counts = parameter_counts(150, 32, 10)
    for name in ("s_conv", "s_local", "s_fc"):
        exact, formula = counts[name]
        assert exact == formula
    exact, formula = parameter_counts(15, 32, 10)["d_local"]
    assert (exact, formula) == (11_713_920, 3_419_520)


def test_over_parameterised_members_start_at_the_smallest_that_fits():
    train = [(10, 80.0), (20, 99.0), (40, 94.0)]
    test = [(10, 90.0), (20, 70.0), (40, 71.0)]
    assert over_parameterised(train, test, 95.0) == (20, 71.0)
    assert over_parameterised(train, test, 99.5) is None


def test_equal_widths_share_a_row_and_narrow_budgets_are_refused():
    widths = WidthStudy(families=("S-CONV",), budgets=(10_000, 10_001))
    assert len(widths.variants()) == 1
    with pytest.raises(training.ConfigError, match="budgets"):
        WidthStudy(budgets=(10,)).variants()
    with pytest.raises(training.ConfigError, match="ResNet18, D-CONV, S-CONV, 3-FC"):
        WidthStudy(families=("S-FC",))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"datasets": ("a/x", "b/x")}, "last part"),
        ({"datasets": ()}, "datasets"),
        ({"seeds": (1, 1)}, "seeds"),
        ({"permute_pixels": None}, "permute_pixels"),
    ],
)
def test_bad_studies_are_refused(changes, message):
    with pytest.raises(training.ConfigError, match=message):
        PermutationStudy().replace(**changes)


def test_a_diverged_run_is_reported_beside_the_finished_ones(
    tiny_dataset, tiny_config, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(data, "load", lambda *args, **kwargs: tiny_dataset)
    rates = {"good": {}, "bad": {"learning_rate": 1e30}}

    class TwoRows(studies.Study):
        def variants(self):
            return rates

        def findings(self, results):
            rows = [{"row": cell.row} for cell in results]
            return studies.Findings({PRINTABLE: rows, "none": []}, {}, [PRINTABLE], [PRINTABLE])

    rows = TwoRows(title=PRINTABLE, run=tiny_config.replace(run_dir=str(tmp_path), epochs=1))
    with pytest.raises(SystemExit):
        training.main(rows, studies.report_study, description="", argv=[])
    shown = capsys.readouterr()
    assert "Diverged: bad, cifar10, seed 0" in shown.err
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<td>good</td>" in page
    assert "<td>bad</td>" not in page
    assert "NaN or infinite" in page
    check_harmless(tmp_path / "report.html", shows=PRINTABLE)


def test_a_row_trains_alike_alone_and_in_its_table():
    """A published target is claimed by one configuration only."""
    for table in (TABLE_1, TABLE_2):
        chosen = table.replace(seeds=(3,))
        for cell, config in chosen.runs().values():
            assert table.row(cell.row, cell.dataset).replace(seed=3) == config
    shared = [name for name in TABLE_2.rows if name.endswith(" SGD")]
    assert len(shared) == 4
    for name in shared:
        one = TABLE_1.row(name.removesuffix(" SGD"), "svhn").replace(epochs=4000)
        assert one == TABLE_2.row(name, "svhn")


def test_rows_of_beta_lasso_have_neither_momentum_nor_decay():
    for name in TABLE_2.rows:
        config = TABLE_2.row(name, "cifar10")
        is_sgd = config.optimizer == "sgd"
        assert (config.momentum, config.weight_decay) == ((0.9, 5e-4) if is_sgd else (0.0, 0.0))
    assert sum(TABLE_2.row(n, "cifar10").optimizer == "sgd" for n in TABLE_2.rows) == 4


def test_svhn_has_its_published_pipeline_and_its_extra_images_on_request(monkeypatch):
    def load_tfds(name, data_dir, *, include_extra=False):
        assert name == "svhn"
        num = 60 if include_extra else 30
        generator = np.random.default_rng(0)
        arrays = {"class_names": tuple("0123456789"), "source": "fake"}
        for split, size in (("train", num), ("test", 10)):
            arrays[f"x_{split}"] = generator.integers(0, 256, (size, 32, 32, 3), dtype=np.uint8)
            arrays[f"y_{split}"] = np.arange(size) % 10
        return arrays

    monkeypatch.setattr("tfconvbias.data.loading.load_tfds", load_tfds)
    table = TABLE_1.replace(datasets=("cifar10", "svhn"), rows=("S-FC",), base_channels=1)
    # Of each class one image becomes a validation image.
    for extra, num_train in ((False, 20), (True, 50)):
        chosen = table.replace(include_extra=extra)
        runs = {cell.dataset: config for cell, config in chosen.runs().values()}
        assert (runs["cifar10"].include_extra, runs["svhn"].include_extra) == (False, extra)
        dataset = training.build_dataset(runs["svhn"])
        assert len(dataset.x_train) == num_train
    layers = training.build_model(runs["svhn"], dataset).get_layer("preprocessing").layers
    assert len(layers[0].policy) == 497
    assert layers[-1].length == 20
