"""What is planned, as data: models, clusters, workloads and the scenarios that join them."""
