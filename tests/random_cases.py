"""How property-based tests draw: the same cases in every run, few of them, no files.

A case that fails is shown as it was drawn: to shrink it would take minutes where networks are
built.
"""

import hypothesis
from hypothesis import strategies as st

_WITHOUT_SHRINKING = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
_EACH_TEST_HAS_A_SEED = (hypothesis.HealthCheck.function_scoped_fixture,)


def random_cases(count, **strategies):
    """Run a test on cases that hypothesis draws.

    Args:
        count: Number of cases.
        **strategies: One per argument of the test.
    """

    def decorate(test):
        settings = hypothesis.settings(
            max_examples=count,
            derandomize=True,
            database=None,
            deadline=None,
            phases=_WITHOUT_SHRINKING,
            suppress_health_check=_EACH_TEST_HAS_A_SEED,
        )
        return settings(hypothesis.given(**strategies)(test))

    return decorate


@st.composite
def windows(draw, ranks=(1, 2, 3), paddings=("valid", "same"), longest=7):
    """Spatial shape and options of a convolution, with strides and dilation at once."""
    rank = draw(st.sampled_from(ranks))
    padding = draw(st.sampled_from(paddings))
    kernel, strides, dilation, spatial = [], [], [], []
    for _ in range(rank):
        kernel.append(draw(st.integers(1, 3)))
        strides.append(draw(st.integers(1, 3)))
        dilation.append(draw(st.integers(1, 2)))
        span = (kernel[-1] - 1) * dilation[-1] + 1
        spatial.append(draw(st.integers(span if padding == "valid" else 1, longest)))
    options = {
        "kernel_size": tuple(kernel),
        "strides": tuple(strides),
        "dilation_rate": tuple(dilation),
        "padding": padding,
    }
    return tuple(spatial), options
