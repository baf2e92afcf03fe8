"""Text emotion recognition: data sets, tokens, encoders and the frontend that joins them to samo."""
