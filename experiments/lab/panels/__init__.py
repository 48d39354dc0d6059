"""The plots of a study, as panels."""

from experiments.lab.figures import Panel
from experiments.lab.panels import change, conv, dominoes, regularisation, released, sea
from experiments.lab.rows import Study

_STUDIES = {"sea": sea, "dominoes": dominoes, "conv": conv, "change": change,
            "regularisation": regularisation, "released": released}  # fmt: skip


def panels(study: Study) -> list[Panel]:
    """The panels of a study that have a point to draw."""
    module = _STUDIES.get(study.name)
    return module.panels(study) if module and study.rows else []
