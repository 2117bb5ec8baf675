"""The one tree of errors: what went wrong, whose fault it is, whether to try again, how to mend it.

Owned by everybody: every layer raises these and no other exceptions of its own. Three places may catch
`Exception` broadly (tool run, daemon top, CLI top); everything else catches a class of this file.
An error leaves the box as a *problem document* (`EdgeError.problem`), so messages are written for the
person who reads them: what was wrong, where, and how to mend it. They must never carry a secret or a
payload.
"""

from __future__ import annotations

from typing import Any, ClassVar


class EdgeError(Exception):
    """Something the box refused or could not do."""

    code: ClassVar[str] = "error"
    #: Whose fault: "caller", "author", "environment" or "ours".
    fault: ClassVar[str] = "ours"
    #: True where the same call may succeed later without a change.
    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str = "", *, mend: str = "", code: str = "", retry_after_ms: int | None = None
    ) -> None:
        doc = (type(self).__doc__ or "").strip().splitlines()[0]
        super().__init__(message or doc)
        self.message = message or doc
        self.mend = mend
        self.problem_code = code or type(self).code
        self.retry_after_ms = retry_after_ms

    def problem(self) -> dict[str, Any]:
        """The problem document: `{code, message[, mend][, retry_after_ms]}`, plain values only."""
        doc: dict[str, Any] = {"code": self.problem_code, "message": self.message}
        if self.mend:
            doc["mend"] = self.mend
        if self.retry_after_ms is not None:
            doc["retry_after_ms"] = self.retry_after_ms
        return doc

    def __str__(self) -> str:
        return f"{self.message} {self.mend}".rstrip()


class RequestRefused(EdgeError):
    """The request was refused; nothing was started and the log holds at most the refusal."""

    code = "refused"
    fault = "caller"


class PayloadInvalid(RequestRefused):
    """The payload is not what its content type says."""

    code = "payload_invalid"


class PlaybookInvalid(EdgeError):
    """The playbook cannot be compiled."""

    code = "playbook_invalid"
    fault = "author"


class EvaluationFailed(EdgeError):
    """An expression could not be evaluated."""

    code = "expression_failed"
    fault = "author"


class ToolFailed(EdgeError):
    """A tool ran and reported a failure; its step fails with this problem."""

    code = "tool_failed"
    fault = "author"

    def __init__(
        self,
        message: str = "",
        *,
        mend: str = "",
        code: str = "",
        retry_after_ms: int | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message, mend=mend, code=code, retry_after_ms=retry_after_ms)
        #: What policies may look at beside: plain values, such as `kind`, `retryable`, `http`.
        self.details = details or {}

    def problem(self) -> dict[str, Any]:
        """The problem document with the details in it."""
        return {**super().problem(), **self.details}


class CacheMiss(EdgeError):
    """A block is not in the cache, or is not the block that was written; make it again."""

    code = "cache_miss"
    fault = "environment"
    retryable = True


class Unavailable(EdgeError):
    """The other process is not there; nothing was done."""

    code = "unavailable"
    fault = "environment"
    retryable = True


class StorageFailed(EdgeError):
    """The drive refused a read, a write or a flush; nothing after the last receipt may be trusted."""

    code = "storage_failed"
    fault = "environment"


class LogDamaged(EdgeError):
    """The event log does not hold together: a frame, a chain link or a sequence number is wrong."""

    code = "log_damaged"
    fault = "environment"

    #: The problem code where it is the index, which can be made again from the journal.
    INDEX: ClassVar[str] = "index_damaged"


class SegmentRejected(EdgeError):
    """A sealed segment is not what it says it is; nothing of it was taken."""

    code = "segment_rejected"
    fault = "environment"


class ReceiptRejected(EdgeError):
    """A receipt is not what a centre of this box signed; nothing was pruned by it."""

    code = "receipt_rejected"
    fault = "environment"


class Misconfigured(EdgeError):
    """A setting cannot be used."""

    code = "misconfigured"
    fault = "caller"


def not_allowed(what: object) -> Misconfigured:
    """The error for a file or socket of the box that this user may not use: it is neither absent nor damaged."""
    return Misconfigured(
        f"{what} may not be read by this user.", mend="Run this as the user who runs the box, or as root."
    )
