"""``python -m tests.documentation`` writes what is computed in the documentation anew."""

from __future__ import annotations

from tests.documentation import citations, log_lines
from tests.documentation.tables import ROOT, computed, pages

for page in map(ROOT.joinpath, pages()):
    page.write_text(computed(page.read_text()))

ROOT.joinpath(log_lines.SCHEMA).write_text(log_lines.schema())
citations.write()
