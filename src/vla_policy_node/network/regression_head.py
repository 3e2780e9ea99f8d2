"""The head that gives the chunk itself, trained with an L1 loss (as OpenVLA-OFT, arXiv 2502.19645)."""

from torch import Tensor, nn


class RegressionHead(nn.Module):
    """One linear map from a query's features to the action of its step."""

    def __init__(self, d_model: int, action_dimensions: int) -> None:
        super().__init__()
        self.linear = nn.Linear(d_model, action_dimensions)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, H, D) to normalised actions (B, H, A)."""
        actions: Tensor = self.linear(features)
        return actions
