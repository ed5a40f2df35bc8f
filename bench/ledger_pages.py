"""The words of docs/ledger-queries.md; bench.ledger_explain measures and puts them together."""

INTRODUCTION = """<!-- Written by `python -m bench.ledger_explain`; change bench/ledger_pages.py instead. -->

# How the ledger's reads find their rows

Measured on a book of {transactions} transactions with two entries each, over six monthly partitions; one account is
in every other transaction, 2,000 share the rest. Another tenant has {other} transactions in the same tables. The
statements are the repository's own, run as the role `kente_ledger`, the cache warm. In the plans, "of the tenant"
stands for the condition of row-level security.

## Two axes of time

An entry has a time of booking (`create_time`) and a time of effect (`effective_time`; null means that of booking). A
moment is a pair: K, what was booked by then, and T, what had taken effect by then. **An entry counts when it was
booked at K or before, and takes effect at T or before**: both bounds are part of it. Without K, all that is booked
counts; without T, also what takes effect later. **Periods of statements and of profit and loss hold their start and
not their end**: the balance at their opening counts what takes effect before the start, up to the microsecond before
it.

No row is written anew when something is booked with a time of effect in the past:

1. Times of booking never fall within a journal, so what was booked by a time is what has a sequence up to some S. The
   checkpoint of the last batch by then says S (`checkpoints_by_time`).
2. The balance at S is `balance_after_minor` of the account's last posted entry up to S (`entries` by `account_key`,
   `sequence`): one look into each month's index, however much was booked.
3. For T, take S of min(T, K). Entries whose time of effect is that of booking are then right already. The others are
   in an index of their own (`entries_by_own_effect`): take off those up to S that take effect after T, and add those
   after S, and booked by K, that had taken effect by T.

A balance "as of booking time K" can be repeated once K is past. While K is now, a batch under way may still be booked
at K; the answer's `sequence` says what was known.

What is held follows the axis of booking: a hold counts from its booking until it is posted or voided, or until its
time is over, and from its time of effect on.

The sums of debits and of credits, unlike the balance, stand in no entry. They are read from the account's entries up
to S, or taken off today's sums from those after S, whichever are fewer in the journal. For the hot account that is
the one read of a past balance whose time grows with the book; reports and statements need only balances.

## What an index can do behind row-level security

A condition may be tested in an index before the tenant's condition only when its operator can betray nothing about
rows of other tenants, which PostgreSQL calls leakproof. Plain comparisons of columns are; `@>` of jsonb and
arithmetic are not. So:

- Limits that are computed, such as first sequence plus number of entries, are computed in a part of the statement
  that is finished before the comparison, and then compared as a column.
- A prefix of a name is a range of names.
- The GIN index of metadata is out of the role's reach. `leaves_with_metadata` looks into it as the owner of the
  tables, and gives away only leaves of the current tenant. The next 2,000 transactions are looked at first: what most
  transactions have is found there, and what few have, by the index. Metadata that one in thousands of very many
  transactions has are the slow case; a `source_id` is always quick.

The planner takes every account for an average one. Pages therefore forbid it, for their transaction, to gather and
sort (`prefer_order`), and are read in the order of an index until they are full. Where no index leads to what is
asked for, such as an amount in a whole book, one call reads at most 100,000 entries or 50,000 transactions, and gives
a short page with a token to go on: no question can keep a connection busy for long.

## Questions, indexes, cost
"""

ARCHIVE = """
## Partitions

A partition holds a month of booking. What was booked by a time, or since a time, prunes the others. In the plan
below, of six months the three until August are opened:

```
{before}
```

Old months can be detached while others read and book; here the oldest, {size}, in {milliseconds} ms:

    ALTER TABLE entries DETACH PARTITION entries_2026_06 CONCURRENTLY;

The same question then opens two:

```
{after}
```

Afterwards, balances now, and as of any time since, are what they were: an account without an entry left before a time
has the balance that its next entry began with, or that it has today. Moments before the end of the detached month are
refused with FIELD_INVALID and not answered from what is left. Lists of entries begin with
what is left, and transactions of the month are shown without their entries. [ledger-size.md](ledger-size.md) says what
to look at before, and what stays. A detached table is a table of its own, with all its rows: it can be dumped, moved,
and attached again.
"""

QUESTIONS_PROSE = {
    "How far the journal had come by a time": "Turns a time of booking into a sequence and a leaf.",
    "Balance by time of effect, hot account": (
        "The second statement corrects by the entries with a time of effect of their own."
    ),
    "Sums of both sides, hot account": "Grows with the account's entries up to the time, or since it.",
    "Statement, a page, hot account": (
        "Two lists that are in order already: by sequence, and by time of effect. A page reads one page of each."
    ),
    "Entries of the hot account, a late page": "The token says when the last entry was booked: older months stay shut.",
    "Entries by metadata that few have": "Near transactions first, then the index of metadata, then the entries.",
    "Transactions of a rare kind": "The index holds all but postings.",
    "The next 100 transactions of the stream": "What WatchEntries reads: leaves in order, by the primary key.",
}
