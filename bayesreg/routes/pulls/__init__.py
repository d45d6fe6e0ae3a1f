"""How a prior acts on gradients and weights around a step: added, proximal, decoupled, in float32."""

__all__: list[str] = []
