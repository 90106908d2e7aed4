"""A plain document — headings, paragraphs, tables — as Markdown and as self-contained HTML.

All texts are escaped: markup in them stays text in both formats.
"""

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final, NamedTuple


class Grid(NamedTuple):
    """A table; each row has as many cells as the head."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


class Section(NamedTuple):
    """A heading, and the paragraphs and tables below it."""

    title: str
    blocks: Sequence[str | Grid]


class Document(NamedTuple):
    """`alarm` is shown before everything else, on the first line."""

    title: str
    alarm: str | None
    sections: Sequence[Section]


_MARKS: Final = str.maketrans({mark: f"\\{mark}" for mark in "\\`*_[]|#~!$"} | {"<": "&lt;", ">": "&gt;", "&": "&amp;"})
_STYLE: Final = (
    "body{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:1em 0}"
    "th,td{border:1px solid #bbb;padding:.2em .6em;text-align:left;vertical-align:top;overflow-wrap:anywhere}"
    "th{background:#eee}tr{break-inside:avoid}h2{break-after:avoid;margin-top:2em}"
    ".alarm{border:3px solid #b00020;padding:.5em 1em;font-weight:bold}"
)


def plain(text: str) -> str:
    """`text` on one line, without characters that are invisible or change the text direction.

    >>> plain("a" + chr(10) + "b" + chr(0x202E))
    'a\\ufffdb\\ufffd'
    """
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


def _marked(text: str) -> str:
    marked = plain(text).translate(_MARKS)
    # GitHub would turn these into links.
    return marked.replace("://", ":\\/\\/").replace("www.", "www\\.").replace("@", "\\@")


def markdown(document: Document) -> str:
    """`document` in GitHub's Markdown.

    >>> print(markdown(Document("T", None, [Section("S", [Grid(["a"], [["<b>|"]])])])))
    # T
    <BLANKLINE>
    ## S
    <BLANKLINE>
    | a |
    |---|
    | &lt;b&gt;\\| |
    <BLANKLINE>
    """
    return "\n\n".join(_markdown_blocks(document)) + "\n"


def _markdown_blocks(document: Document) -> Iterator[str]:
    if document.alarm:
        yield f"**{_marked(document.alarm)}**"
    yield f"# {_marked(document.title)}"
    for section in document.sections:
        yield f"## {_marked(section.title)}"
        for block in section.blocks:
            if isinstance(block, str):
                yield _marked(block)
            else:
                lines = [f"| {' | '.join(map(_marked, row))} |" for row in (block.head, *block.rows)]
                yield "\n".join([lines[0], "|" + "---|" * len(block.head), *lines[1:]])


def html(document: Document) -> str:
    """`document` as a page without scripts or external resources; its content security policy forbids both."""
    title = escape(plain(document.title))
    parts = [
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">',
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        f"<title>{title}</title><style>{_STYLE}</style></head><body>",
    ]
    if document.alarm:
        parts.append(f'<p class="alarm">{escape(plain(document.alarm))}</p>')
    parts.append(f"<h1>{title}</h1>")
    for section in document.sections:
        parts.append(f"<h2>{escape(plain(section.title))}</h2>")
        parts += [_html_block(block) for block in section.blocks]
    return "\n".join([*parts, "</body></html>"]) + "\n"


def _html_block(block: str | Grid) -> str:
    if isinstance(block, str):
        return f"<p>{escape(plain(block))}</p>"
    head = "".join(f"<th>{escape(plain(cell))}</th>" for cell in block.head)
    rows = ("".join(f"<td>{escape(plain(cell))}</td>" for cell in row) for row in block.rows)
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>"
