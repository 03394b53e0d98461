"""The simulated site as a building shows it: through the protocols that real gateways read.

Each module needs the library of its protocol; this package itself needs none of them.
"""

from simulation.serving.serving import Moment, ServedSite, Server

__all__ = ["Moment", "ServedSite", "Server"]
