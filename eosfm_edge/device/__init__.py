"""What a bundle brings to a device besides the model: libeosfm, built for it, and instructions."""
