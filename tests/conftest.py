"""What pytest does beyond its habit."""

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):  # noqa: ARG001  # pytest passes by name
    """A failed test with a browser tells where the picture of what it saw lies."""
    report = yield
    browser = getattr(item, "funcargs", {}).get("browser")
    if report.failed and browser:
        report.sections.append(("Page as it was seen", str(browser.take_failure(item.name.replace("/", "-")))))
    return report
