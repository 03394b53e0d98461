"""Everything that a site breaks, broken at random for minutes, and the account of what came of it."""
