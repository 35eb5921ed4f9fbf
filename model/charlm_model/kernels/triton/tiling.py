"""How a kernel's work is cut: for speed alone, since no cut changes a sum (`kernels.product`)."""

from dataclasses import dataclass

BLOCK = 64  # sizes are padded to multiples of it


@dataclass(frozen=True, slots=True)
class Tile:
    """What a program computes: so many rows and columns, so many inputs at a time."""

    rows: int
    columns: int
    depth: int
    num_warps: int
    num_stages: int
    at_least: int
    """Rows from which it is the fastest."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """The tiles to choose from, those for more rows later; the first fits any number of rows."""

    tiles: tuple[Tile, ...]

    def padded(self, batch_size: int) -> int:
        """Rows in whole tiles."""
        [*_, best] = [tile for tile in self.tiles if tile.at_least <= batch_size]
        return padded(batch_size, best.rows)

    def of(self, num_rows: int) -> Tile:
        """For so many rows, or tokens of padded rows."""
        fitting = [tile for tile in self.tiles if num_rows % tile.rows == 0]
        [*_, best] = [tile for tile in fitting if tile.at_least <= num_rows]
        return best


# A single row is cut into many narrow programs; many rows into square ones.
TILING = Tiling(
    (
        Tile(rows=1, columns=16, depth=32, num_warps=1, num_stages=4, at_least=1),
        Tile(rows=16, columns=32, depth=32, num_warps=4, num_stages=3, at_least=2),
        Tile(rows=64, columns=64, depth=32, num_warps=4, num_stages=3, at_least=256),
    )
)


def padded(size: int, to: int = BLOCK) -> int:
    return -(-size // to) * to


def power_of_two(size: int) -> int:
    """The smallest that is no less."""
    return 1 << (size - 1).bit_length()
