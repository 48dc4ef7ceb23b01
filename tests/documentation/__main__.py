"""``python -m tests.documentation`` writes all computed tables and the list of tests anew."""

from __future__ import annotations

from tests.documentation import citations
from tests.documentation.tables import ROOT, computed, pages

for page in map(ROOT.joinpath, pages()):
    page.write_text(computed(page.read_text()))

citations.write()
