"""Writes the generated pages of the documentation: ``python -m deploy.documentation``."""

from deploy.documentation.pages import DOCS, generated_pages


def main() -> None:
    """Write every generated page."""
    for name, text in generated_pages().items():
        (DOCS / name).write_text(text)


if __name__ == "__main__":
    main()
