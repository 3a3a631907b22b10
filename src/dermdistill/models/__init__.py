"""Networks: timm backbones as branches of four depths, with exits and layer fusion."""
