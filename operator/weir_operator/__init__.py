"""The control plane: from what people wrote to what routers obey, by way of the Kubernetes API."""
