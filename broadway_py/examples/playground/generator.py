"""Makes up shipments: a file of them, or a stream without end. The same seed makes the same ones.

The trap: a line begins with the country that a ship leaves, as people say "from Denmark to Kenya". The parser calls
this column ``to``. The exercise ``denmark`` is about this.
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Final

from broadway_py import Flow

__all__ = ["COUNTRIES", "START", "generate_with_flow", "line", "lines", "to_file"]

#: The time of the first shipment, in seconds since 1970.
START: Final = 1_582_284_844

COUNTRIES: Final = tuple(
    """\
Albania, Algeria, Andorra, Angola, Argentina, Armenia, Aruba, Australia, Austria, Azerbaijan, Bahamas, Bahrain,
Bangladesh, Barbados, Belarus, Belgium, Belize, Benin, Bermuda, Bhutan, Bolivia, Botswana, Brazil, Bulgaria, Burundi,
Cambodia, Cameroon, Canada, Cape Verde, Chad, Chile, China, Colombia, Comoros, Costa Rica, Croatia, Cuba, Cyprus,
Denmark, Djibouti, Dominica, Ecuador, Egypt, El Salvador, Eritrea, Estonia, Ethiopia, Fiji, Finland, France, Gabon,
Gambia, Georgia, Germany, Ghana, Gibraltar, Greece, Greenland, Grenada, Guatemala, Guinea, Guyana, Haiti, Honduras,
Hungary, Iceland, India, Indonesia, Iran, Iraq, Ireland, Israel, Italy, Jamaica, Japan, Jordan, Kazakhstan, Kenya,
Kiribati, Kuwait, Laos, Latvia, Lebanon, Lesotho, Liberia, Libya, Lithuania, Luxembourg, Madagascar, Malawi, Malaysia,
Maldives, Mali, Malta, Mauritania, Mauritius, Mexico, Moldova, Monaco, Mongolia, Morocco, Mozambique, Namibia, Nauru,
Nepal, Netherlands, New Zealand, Nicaragua, Niger, Nigeria, Norway, Oman, Pakistan, Palau, Panama, Paraguay, Peru,
Philippines, Poland, Portugal, Qatar, Romania, Rwanda, Samoa, San Marino, Senegal, Serbia, Seychelles, Sierra Leone,
Singapore, Slovakia, Slovenia, Somalia, South Africa, South Korea, Spain, Sri Lanka, Sudan, Suriname, Sweden,
Switzerland, Syria, Taiwan, Tajikistan, Tanzania, Thailand, Togo, Tonga, Tunisia, Turkey, Turkmenistan, Tuvalu, Uganda,
Ukraine, United Kingdom, Uruguay, Uzbekistan, Vanuatu, Venezuela, Vietnam, Yemen, Zambia, Zimbabwe""".replace(
        "\n", " "
    ).split(", ")
)


def line(number: int, seed: int = 1, *, per_second: int | None = None) -> str:
    """Returns one line. It depends only on its *number* and the *seed*, so that many stages can make them.

    Args:
        number: counts the lines, from 0.
        seed: other lines for each.
        per_second: how many lines have the same time. None: all have, as if the file was written within a second.
    """
    chance = random.Random(f"{seed} {number}")
    leaves, arrives = chance.choice(COUNTRIES), chance.choice(COUNTRIES)
    container_type, size = chance.choice(("dry", "reef")), chance.choice(("20", "40"))
    amount, booking_id = chance.randint(1, 500), "".join(chance.sample(string.ascii_lowercase, 6))
    ts = START if per_second is None else START + number // per_second
    return f"{leaves}, {arrives}, {container_type}, {size}, {amount}, {booking_id}, {ts}"


def lines(seed: int = 1, *, per_second: int | None = None) -> Iterator[str]:
    """Yields lines without end. The arguments are those of :func:`line`."""
    return (line(number, seed, per_second=per_second) for number in count())


def generate_with_flow(number_of_lines: int, seed: int = 1, *, stages: int = 4) -> Flow[str]:
    """Returns a flow that makes lines in several stages: those of :func:`lines`, in another order if *stages* > 1."""
    return Flow.from_iterable(range(number_of_lines), stages=stages).map(lambda number: line(number, seed))


def to_file(path: Path | str, made: Iterable[str]) -> None:
    """Writes lines to a file, such as ``islice(lines(), 1_000)`` or ``generate_with_flow(1_000)``."""
    with Path(path).open("w", encoding="utf-8") as file:
        file.writelines(f"{each}\n" for each in made)
