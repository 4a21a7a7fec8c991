import keras
import pytest

from tfconvbias import analysis, models, training
from tfconvbias.studies.neyshabur2020 import (
    DescriptionTableConfig,
    description_rows,
    report_description_lengths,
)

SMALL = {"s_channels": 1, "d_channels": 1, "image_size": 8, "num_classes": 3, "kept": (0.1,)}


def number(text):
    return int(text.replace(",", ""))


def test_every_member_is_described_dense_and_thinned_out():
    rows = {row["model"]: row for row in description_rows(DescriptionTableConfig(**SMALL))}
    assert len(rows) == 12
    for letter in "SD":
        full = {c: rows[f"{letter}-{c}(1)"] for c in ("CONV", "LOCAL", "FC")}
        family = f"{letter.lower()}_fc"
        expected = models.num_kernel_parameters(family, 1, input_shape=(8, 8, 3), classes=3)
        # All three live in the space of the fully connected one.
        assert {number(row["n"]) for row in full.values()} == {expected}
        assert number(full["FC"]["‖w‖₀"]) == number(full["FC"]["k"]) == expected
        assert full["CONV"]["‖w‖₀"] == full["LOCAL"]["‖w‖₀"] == full["LOCAL"]["k"]
        assert number(full["CONV"]["k"]) < number(full["LOCAL"]["k"])
        assert full["CONV"]["unshared, bits"] == full["LOCAL"]["sparse, bits"]
        for name, row in full.items():
            thin = rows[f"{letter}-{name}(1), 10 % kept"]
            assert number(thin["‖w‖₀"]) < 0.2 * number(row["‖w‖₀"])
            assert float(thin["sparse, bits"]) < float(row["sparse, bits"])
            assert thin["plain, bits"] == row["plain, bits"]
            assert float(thin["bound 2"]) < float(row["bound 2"])


def test_the_report_says_who_is_short_and_what_the_bounds_are_worth(tmp_path, capsys):
    config = DescriptionTableConfig(**SMALL, num_samples=100, run_dir=str(tmp_path))
    report_description_lengths(config)
    rows = {row["model"]: row for row in description_rows(config)}
    short = [m for m, r in rows.items() if float(r["sparse, bits"]) < float(r["plain, bits"])]
    assert 0 < len(short) < 12
    least, best = min((float(row["bound 2"]), name) for name, row in rows.items())
    assert least > 1
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for text in (page, capsys.readouterr().out):
        assert f"for {len(short)} of 12 models: {'; '.join(short)}." in text
        assert f"is assumed: {best}, {least:.2f}, which is not below 1" in text
    assert (tmp_path / "figures" / "description-lengths.svg").exists()
    assert "<dt>α of the S family</dt><dd>1</dd>" in page


def test_trained_models_stand_in_the_table(tmp_path):
    config = training.RunConfig(
        family="s",
        connectivity="dense",
        base_channels=1,
        dataset="motifs10",
        num_train=64,
        batch_size=32,
        epochs=1,
        tensorboard=False,
        verbose="silent",
        run_dir=str(tmp_path / "run"),
    )
    training.run(config)
    small = {**SMALL, "kept": ()}
    chosen = DescriptionTableConfig(**small, runs=(str(tmp_path / "run"),), bits=16)
    *_, row = description_rows(chosen)
    model = keras.saving.load_model(tmp_path / "run" / "last.keras")
    found = analysis.description_length(model, include="kernels", bits_per_parameter=16)
    assert number(row["parameters"]) == found.num_parameters
    assert float(row["sparse, bits"]) == pytest.approx(found.bits, rel=1e-2)

    # 64 images were trained on, and the model is asked for its answers to these.
    images, labels = training.build_dataset(config).split("train")
    answers = keras.ops.convert_to_numpy(model(images)).argmax(axis=1)
    errors = (answers != labels).mean()
    assert 0.1 < errors < 1
    assert row["m"] == "64"
    assert row["errors, %"] == f"{100 * errors:.2f}"
    whole = analysis.description_length(model, bits_per_parameter=16)
    assert whole.bits > found.bits
    assert float(row["bound 2"]) == pytest.approx(whole.bound(errors, 64, 0.05), abs=0.006)
    others = DescriptionTableConfig(**small, runs=(str(tmp_path / "run"),), dataset="motifs100")
    with pytest.raises(training.RunFolderError, match="trained on other images"):
        list(description_rows(others))
    missing = DescriptionTableConfig(**SMALL, runs=(str(tmp_path / "nowhere"),))
    with pytest.raises(training.ConfigError, match="nowhere"):
        next(description_rows(missing))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"s_channels": 0}, "s_channels must be a positive integer"),
        ({"kept": (0.0,)}, "kept must lie"),
        ({"delta": 1.0}, "delta=1.0"),
        ({"train_error": 2.0}, "train_error=2.0"),
    ],
)
def test_bad_configurations(change, message):
    with pytest.raises(training.ConfigError, match=message):
        DescriptionTableConfig(**change)
