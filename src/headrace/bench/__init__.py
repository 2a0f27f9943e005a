"""The virtual-real bench: apps, site files and connectors, tried before they touch a plant."""
