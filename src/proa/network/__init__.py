"""Connect containers: bridges, addresses, nftables rules and published ports."""
