"""The vision-language-action network: encoders, decoder and action heads."""
