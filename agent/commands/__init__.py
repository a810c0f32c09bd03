"""What a person types, on the caller's side: questions, screens, and what needs no agent (doctor, selftest)."""
