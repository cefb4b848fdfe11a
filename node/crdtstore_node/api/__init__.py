"""The HTTP API: carries requests to the service and its answers back; the rules are the service's."""
