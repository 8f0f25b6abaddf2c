"""The nouns users know (containers, images, networks, volumes, events) over storage, network and monitors."""
