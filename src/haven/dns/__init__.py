"""The cluster's DNS, one in each agent: the zone from Services and EndpointSlices, the rest forwarded."""
