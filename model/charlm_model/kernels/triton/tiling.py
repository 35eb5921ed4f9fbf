"""Tiles of the matrix products: chosen for speed alone, as no tile changes a sum (`matmul`)."""

from dataclasses import dataclass

BLOCK = 64  # sizes are padded to multiples of it


@dataclass(frozen=True, slots=True)
class Tile:
    """The rows and columns that one program computes, and the inputs it loads at a time."""

    rows: int
    columns: int
    depth: int
    num_warps: int
    num_stages: int
    at_least: int
    """The number of rows from which this tile is the fastest."""


@dataclass(frozen=True, slots=True)
class Tiling:
    """The tiles to choose from, in ascending order of rows; the first fits any number of rows."""

    tiles: tuple[Tile, ...]

    def padded(self, batch_size: int) -> int:
        """The batch size, rounded up to whole tiles."""
        [*_, best] = [tile for tile in self.tiles if tile.at_least <= batch_size]
        return padded(batch_size, best.rows)

    def of(self, num_rows: int) -> Tile:
        """The fastest tile that divides this number of rows."""
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
    """The smallest power of two that is not less than `size`."""
    return 1 << (size - 1).bit_length()
