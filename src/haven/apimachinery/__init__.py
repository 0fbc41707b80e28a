"""What every API object shares: metadata, names, selectors, quantities, patches, apply, codecs, errors."""
