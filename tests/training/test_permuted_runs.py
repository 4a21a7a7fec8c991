"""A run on permuted pixels trains on them, says so, and stands in the study beside a plain one."""

import keras
import numpy as np

from tfconvbias import data, studies, training


def test_a_run_permutes_what_its_network_sees(tiny_config, tiny_dataset):
    config = tiny_config.replace(epochs=1, augment="none", dropout_rate=0.0, permute_pixels=7)
    result = training.run(config, tiny_dataset)
    assert result.row["dataset"] == "tiny-permuted7"
    permuted = keras.saving.load_model(result.folder.last_model)
    plain = training.build_model(config.replace(permute_pixels=None), tiny_dataset)
    plain.set_weights(permuted.get_weights())
    images = tiny_dataset.x_test
    found = permuted.predict(images, verbose=0)
    moved = data.permute_pixels(images, 7)
    np.testing.assert_allclose(found, plain.predict(moved, verbose=0), rtol=1e-4, atol=1e-5)
    assert np.abs(found - plain.predict(images, verbose=0)).max() > 1e-3


def test_the_study_trains_each_network_on_both():
    study = studies.neyshabur2020.PermutationStudy(
        run=training.RunConfig(permute_pixels=5, dataset="motifs10")
    )
    seeds = {"in place": [], "permuted": []}
    for name, fields in study.variants().items():
        seeds[name.split(" pixels ")[1]].append(fields["permute_pixels"])
    assert seeds == {"in place": [None] * 3, "permuted": [5] * 3}
