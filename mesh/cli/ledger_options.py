"""Options that commands of `kente ledger` share."""

from typing import Annotated

import typer

TenantOption = Annotated[
    str, typer.Option("--tenant", help="Whose ledger.", show_default="the demo tenant's", rich_help_panel="Which books")
]
BookOption = Annotated[
    str, typer.Option("--book", help="Book of the tenant.", show_default="main", rich_help_panel="Which books")
]
AtOption = Annotated[
    str, typer.Option("--at", help="Only what had taken effect by then: 2026-01-31 or 2026-01-31T18:00:00Z, in UTC.")
]
BookedOption = Annotated[str, typer.Option("--booked", help="Only what was booked by then.")]
FromOption = Annotated[str, typer.Option("--from", help="Beginning of the period of effect.")]
ToOption = Annotated[str, typer.Option("--to", help="End of the period; what takes effect then is not in it.")]
PresentationOption = Annotated[str, typer.Option("--in", help="Currency to show all amounts in as well, such as GHS.")]
RateOption = Annotated[
    list[str] | None, typer.Option("--rate", help="What one unit of a currency is worth in it: USD=12.5. Repeatable.")
]
