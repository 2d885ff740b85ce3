"""One HTML file that holds a whole report: pictures inside, no script, nothing fetched from anywhere.

Such a file can be mailed, archived beside the run and opened in ten years, on a computer that is allowed no network. It
follows the reader's light or dark scheme, and a narrow screen.

Every text is escaped: a photograph named `<script>.jpg` is shown with that name. The page also forbids itself all loading
by a content security policy, so that a slip in here could still not reach out.
"""

from dermaseg.html.cards import Card
from dermaseg.html.page import Page, Tile

__all__ = ["Card", "Page", "Tile"]
