"""The audit trail: who wrote what and when, in the transaction of the write itself."""

import json
from typing import Any

from sqlalchemy import Connection, insert

from dermdistill.review.tables import AuditEntry, now

ENTRY = insert(AuditEntry)


def note(
    connection: Connection,
    who: str,
    action: str,
    *,
    rater_id: int | None = None,
    item: str | None = None,
    old: Any = None,
    new: Any = None,
) -> None:
    """Add an entry; ``old`` and ``new`` are anything that JSON can hold, None where there is nothing to tell."""
    texts = [None if value is None else json.dumps(value, ensure_ascii=False) for value in (old, new)]
    values = {"at": now(), "who": who, "action": action, "rater_id": rater_id, "item": item}
    connection.execute(ENTRY, {**values, "old": texts[0], "new": texts[1]})
