"""A run of summaries in a process of its own, which a test kills."""

from __future__ import annotations

import json
import sys

from recbole_ser.text.summaries import create_summariser
from recbole_ser.text.user_histories import UserHistory


def histories(count: int) -> list[UserHistory]:
    return [UserHistory((), (f"item of user {number}",)) for number in range(count)]


if __name__ == "__main__":
    cache_folder, count, options = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
    create_summariser("openai", cache_folder, **options).summarise(histories(count), "rec")
