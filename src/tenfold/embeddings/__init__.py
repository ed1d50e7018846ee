"""What stands around factorised tables: frequent rows of their own, one table on several machines, and controls of equal size."""
