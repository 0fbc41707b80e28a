"""The service proxy: Services and EndpointSlices to rules of the kernel's nftables."""
