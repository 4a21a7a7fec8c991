import pytest
from tiny_runs import tiny_config, tiny_dataset  # noqa: F401

from tfconvbias import training
from tfconvbias.training.engine import in_process, schedule
from tfconvbias.training.engine.task import Reply


@pytest.fixture
def report_without(monkeypatch):
    """Report on a study while the processes of some tasks die whenever they are tried.

    Its tasks are carried out here, but for those of the given names. Returns the page.
    """

    def report(work, folder, *names, missing=None):
        class Losing(in_process.InProcess):
            def wait(self):
                lost = [order for order in self._orders if order.task.name in names]
                self._orders = [order for order in self._orders if order not in lost]
                gone = Reply(lost="its process was ended by SIGKILL")
                return [*((order.task.name, gone) for order in lost), *super().wait()]

        monkeypatch.setattr(schedule, "InProcess", Losing)
        with pytest.raises(training.MissingRunsError) as caught:
            work()
        missing = missing or names
        assert list(caught.value.missing) == list(missing)
        page = (folder / "report.html").read_text(encoding="utf-8")
        assert f"missing: {'; '.join(missing)}. The same command with --resume" in page
        return page

    return report
