"""A walk over the tokens of one answer."""

from collections.abc import Sequence

from ratchet.notation.tokens import NotationError, Token

MAX_DEPTH = 50
END = Token("end of text", "", False)


class Cursor:
    """Where a parser is, and how deep."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._tokens = list(tokens)
        self._at = 0
        self._depth = 0
        self._bars = 0
        """Open bars of absolute values."""

    @property
    def _next(self) -> Token:
        return self._tokens[self._at] if self._at < len(self._tokens) else END

    def _peek(self, ahead: int = 1) -> Token:
        return self._tokens[self._at + ahead] if self._at + ahead < len(self._tokens) else END

    @property
    def _sign(self) -> str:
        """The next token if it is a sign or a command, as one word."""
        token = self._next
        if token.kind == "command":
            return {"{": "\\{", "}": "\\}", "\\": "\\\\"}.get(token.text, token.text)
        return token.kind if token.kind not in ("symbol", "constant", "function", "word", "number") else ""

    def _take(self) -> Token:
        token = self._next
        if token is not END:
            self._at += 1
        return token

    def _accept(self, *signs: str) -> bool:
        if self._sign in signs and self._next is not END:
            self._at += 1
            return True
        return False

    def _expect(self, sign: str) -> None:
        if not self._accept(sign):
            raise NotationError(f"{sign} expected")

    def _descend(self) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise NotationError("too deep")
