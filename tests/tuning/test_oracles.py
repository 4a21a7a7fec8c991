import keras_tuner
import pytest

from tfconvbias.tuning import SearchConfig
from tfconvbias.tuning.oracles import build_oracle

pytestmark = pytest.mark.filterwarnings("ignore:(currentThread|getName)")


@pytest.fixture
def oracle(tmp_path):
    config = SearchConfig(momenta=(0.0, 0.9), weight_decays=(0.0,), dropout_rates=(0.0,))
    space = keras_tuner.HyperParameters()
    space.Choice("momentum", [0.0, 0.9])
    found = build_oracle(config, space)
    found._set_project_dir(str(tmp_path), "trials")
    return found


def finish(oracle, trial):
    oracle.update_trial(trial.trial_id, {"val_accuracy": 0.5})
    trial.status = "COMPLETED"
    oracle.end_trial(trial)


def test_a_silent_workers_trial_goes_to_another(oracle):
    first = oracle.create_trial("ann")
    second = oracle.create_trial("bob")
    assert oracle.drop_silent(60) == []
    oracle.last_contact["bob"] -= 100
    assert oracle.drop_silent(60) == ["bob"]
    assert "bob" not in oracle.tuner_ids
    finish(oracle, first)
    again = oracle.create_trial("ann")
    assert again.trial_id == second.trial_id
    assert again.hyperparameters.values == second.hyperparameters.values
    finish(oracle, again)
    # Back after all: what it brings is done already.
    finish(oracle, second)
    assert oracle.end_order == [first.trial_id, second.trial_id]
    assert not oracle.is_finished()
    assert oracle.create_trial("ann").status == "STOPPED"
    assert oracle.is_finished()


def test_asking_for_ones_trial_is_a_sign_of_life(oracle):
    trial = oracle.create_trial("ann")
    oracle.last_contact["ann"] -= 100
    oracle.get_trial(trial.trial_id)
    assert oracle.drop_silent(60) == []


def test_workers_wait_while_a_trial_may_have_to_be_repeated(oracle):
    first, second = oracle.create_trial("ann"), oracle.create_trial("bob")
    finish(oracle, first)
    assert oracle.create_trial("ann").status == "IDLE"
    finish(oracle, second)
    assert oracle.create_trial("ann").status == "STOPPED"
    assert not oracle.is_finished()
    assert oracle.create_trial("bob").status == "STOPPED"
    assert oracle.is_finished()


def test_a_trial_whose_workers_die_twice_fails(oracle):
    for name in ("ann", "bob"):
        trial = oracle.create_trial(name)
        oracle.last_contact[name] -= 100
        oracle.drop_silent(60)
    assert oracle.trials[trial.trial_id].status == "FAILED"
    assert "bob was silent" in oracle.trials[trial.trial_id].message
    assert oracle.create_trial("cid").trial_id != trial.trial_id


def test_errors_of_the_oracle_end_the_search_and_free_its_lock(oracle, monkeypatch):
    trial = oracle.create_trial("ann")
    monkeypatch.setattr(oracle, "populate_space", lambda trial_id: 1 / 0)
    assert oracle.create_trial("bob").status == "STOPPED"
    assert isinstance(oracle.failure, ZeroDivisionError)
    finish(oracle, trial)
    assert oracle.create_trial("ann").status == "STOPPED"
    assert oracle.is_finished()
