"""Feature packets for the downlink; ``docs/packets.md`` is their format."""
