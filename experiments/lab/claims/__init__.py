"""The lab's claims by study: what each says, its evidence with bounds, and its controls.

`experiments.lab.verdict.judge` decides them. All bounds were chosen before any run of the lab.
"""

from collections.abc import Mapping, Sequence

from experiments.lab.claims import change, conv, dominoes, regularisation, released, sea
from experiments.lab.rows import Row, Study
from experiments.lab.verdict import Claim, Test

_STUDIES = {"sea": sea, "dominoes": dominoes, "conv": conv, "change": change,
            "regularisation": regularisation, "released": released}  # fmt: skip
CLAIMS: Mapping[str, Sequence[Claim]] = {name: study.CLAIMS for name, study in _STUDIES.items()}


def controls(study: Study, row: Row) -> Sequence[Test]:
    """The controls of one cell, for its row in a table. `row` is any of the cell's."""
    module = _STUDIES.get(study.name)
    return module.cell_controls(study, row) if module else ()


def reference(study: Study) -> tuple[str, Mapping[str, str]]:
    """The metric that is compared, and the columns in which the cell to compare with differs."""
    return _STUDIES[study.name].REFERENCE if study.name in _STUDIES else ("accuracy", {})
