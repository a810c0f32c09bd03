"""What every protocol is written against: layer, context, gate."""
