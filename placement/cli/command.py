"""Commands whose errors name options: the library names its parameters in back-ticks."""

from __future__ import annotations

import re
from typing import Any

import click


class Command(click.Command):
    """A command that calls the library with its parameters under the same names."""

    def invoke(self, ctx: click.Context) -> Any:
        """As click's own; back-ticked parameters in messages of expected errors become this command's options."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            # Imported here, when something went wrong: --help stays quick.
            from placement.errors import InputError, PlacementError

            if isinstance(error, InputError | PlacementError) and error.args:
                error.args = (self.with_options(str(error)),)
            raise

    def with_options(self, text: str) -> str:
        """The text with `parameter` written as this command's --option."""
        options = {each.name: each.opts[0] for each in self.params if isinstance(each, click.Option)}
        return re.sub(r"`(\w+)`", lambda match: options.get(match[1], match[0]), text)
