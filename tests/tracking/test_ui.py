"""MLflow's pages, in a real browser, over the runs that the documents make: what a person changes can be compared.

UI_SCREENSHOTS=.github/images makes the documents' images of them anew.
"""

from typing import NamedTuple

import pytest
from mlflow.entities import Run
from project import Project

pytestmark = [
    pytest.mark.ui,
    pytest.mark.slow,
    pytest.mark.usefixtures("browser"),  # without one no pipeline need run
]

# As in docs/how-to/compare-runs.md, beside the committed 20.
UNITS = (8, 64)
# What is measured at each epoch.
CURVES = ["accuracy/train", "accuracy/validation", "loss/train", "loss/validation"]
# The compare page's table of metrics.
METRICS = "//*[@aria-label='Metrics - Show diff only']/../.."
# It shows three decimals.
SHOWN = 0.0005


class Pages(NamedTuple):
    """MLflow's pages of a project with three runs."""

    project: Project
    address: str
    runs: list[Run]  # the newest first, as the pages list them

    @property
    def names(self) -> list[str]:
        """The runs' names."""
        return [run.info.run_name for run in self.runs]


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """`dvc repro`, `make ui`, then an experiment for each number of hidden units."""
    project = Project.clone(tmp_path_factory.mktemp("clone"))
    project.repro()
    with project.serve() as address:
        for units in UNITS:
            project.run("dvc", "exp", "run", "--name", f"units-{units}", "-S", f"train.hidden_units=[{units}]")
        yield Pages(project, address, project.list_runs())


@pytest.fixture(scope="module")
def runs_page(browser, pages):
    """The address of the list of runs, found from MLflow's first page as a person finds it."""
    browser.open(pages.address)
    browser.press("Model training")
    browser.press("Close")  # the assistant's panel, which opens by itself
    browser.press("digits")
    browser.see_text("Run Name")
    return browser.driver.current_url


@pytest.fixture(scope="module")
def compare_page(browser, runs_page, pages):
    """The address that "Compare" leads to when all runs are ticked."""
    browser.open(runs_page)
    browser.see_text(pages.names[-1])
    browser.press_at("//*[contains(@class, 'ag-header-select-all')]")
    browser.press("Compare")
    browser.see_text("Comparing 3 Runs from 1 Experiment")
    return browser.driver.current_url


def read_cells(browser, heading):
    """The cells of the row of this heading in a table of the compare page."""
    return ["".join(text.split()) for text in browser.read_all(f"//tr[th[normalize-space()='{heading}']]/td")]


def find_metric(browser, name):
    """The XPath of a metric's name on the compare page, scrolled into sight."""
    heading = f"{METRICS}//a[normalize-space()='{name}']"
    browser.scroll_within(f"({METRICS}//*[@role='grid'])[last()]", heading)
    return heading


def test_experiment_lists_its_runs(browser, runs_page, pages):
    """The experiment's page shows each run by its name, the newest first."""
    browser.open(runs_page)
    browser.see_text(pages.names[-1])
    links = browser.read_all("//a[contains(@href, '/runs/')]")

    assert pages.names[:2] == ["units-64", "units-8"]
    assert links == pages.names


def test_compare_shows_the_changed_param_of_each_run(browser, compare_page):
    """The compare page shows the values of a changed parameter side by side, below the runs' names."""
    browser.open(compare_page)

    assert read_cells(browser, "train.hidden_units") == ["[64]", "[8]", "[20]"]
    assert read_cells(browser, "train.epochs") == ["20", "20", "20"]


def test_compare_hides_unchanged_params_at_a_switch(browser, compare_page):
    """With "Show diff only", what was changed is all that is left of the parameters."""
    browser.resize(1000, 1540)
    browser.open(compare_page)
    browser.see_text("train.epochs")
    browser.press("Parameters - Show diff only")
    browser.wait(lambda: not browser.find_all("//th[.='train.epochs']"), "train.epochs gone")
    browser.see("//*[contains(@class, 'parcoords')]")
    headings = browser.read_all("//*[@aria-label='Parameters - Show diff only']/../..//th")
    browser.take_picture("compare")
    browser.resize(1400, 1000)

    assert headings == ["train.hidden_units"]


@pytest.mark.parametrize("metric", ["accuracy/test", "export_max_abs_error/model_int8.tflite"])
def test_compare_shows_metrics_as_stored(browser, compare_page, pages, metric):
    """The compare page shows for each run, in the order of the runs' names, the metric that the store holds."""
    browser.open(compare_page)
    names = read_cells(browser, "Run Name:")
    shown = browser.read_row(find_metric(browser, metric), METRICS)

    assert names == ["".join(name.split()) for name in pages.names]
    assert [float(value) for value in shown] == pytest.approx(
        [run.data.metrics[metric] for run in pages.runs], abs=SHOWN
    )


def test_metric_of_the_compare_page_opens_a_chart_over_epochs(browser, compare_page, pages):
    """A metric's name leads to a chart with a line and a legend's entry for each run, over the epochs."""
    browser.open(compare_page)
    browser.press_at(find_metric(browser, "loss/train"))
    for name in pages.names:
        browser.see_text(f"{name} (loss/train)")
    # Whatever their colours: here MLflow takes them from the runs' ids, and two of three may have the same.
    browser.wait(lambda: list(map(len, browser.list_lines())) == [len(pages.names)], "a chart with a line for each run")

    assert browser.read_all("//*[@class='xtitle']") == ["Step"]


def test_charts_draw_the_learning_curves(browser, runs_page, pages):
    """The chart view, searched for training and validation, has four charts with a line for each run."""
    browser.resize(1250, 1110)
    browser.open(runs_page)
    browser.press_at("//label[.//input[@value='CHART']]")
    browser.type_at("//input[@placeholder='Search metric charts']", "/(train|validation)$")
    counts = [len(pages.runs)] * len(CURVES)
    browser.wait(lambda: list(map(len, browser.list_lines())) == counts, "four charts with a line for each run")
    for title in CURVES:
        browser.see(f"//*[@title='{title}' or normalize-space()='{title}']")
    browser.take_picture("charts")
    browser.resize(1400, 1000)


@pytest.mark.parametrize(("folder", "chart"), [("evaluation", "confusion.png"), ("parity", "parity.png")])
def test_run_shows_its_charts(browser, runs_page, pages, folder, chart):
    """A run's page shows the charts among its artifacts, loaded whole."""
    browser.open(runs_page)
    browser.press(pages.names[0])
    browser.press("Artifacts")
    browser.press_text("reports")
    browser.press_text(folder)
    browser.press_text(chart)
    browser.see_text(f"reports/{folder}/{chart}")
    width = browser.wait(lambda: int(browser.see("//img").get_property("naturalWidth")), chart)

    assert width > 100


def test_registry_shows_the_champion(browser, pages):
    """The registered model's page shows a version for each run, and the champion's alias beside its version."""
    browser.open(f"{pages.address}/#/models/digits")
    (row,) = browser.read_all("//*[@role='row'][.//*[@role='status' and @title='champion']]")
    versions = browser.read_all("//a[starts-with(normalize-space(), 'Version ')]")
    champion = pages.project.client.get_model_version_by_alias("digits", "champion")

    assert row.startswith(f"Version {champion.version}\n")
    assert len(versions) == len(pages.runs)
