"""Images, videos, masks and files: all that is read and written."""

__all__: list[str] = []
