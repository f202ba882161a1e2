-- The generation under a marker. Follows marker.lua. KEYS: the marker. ARGV: 1 fresh generation.

local generation = observe(KEYS[1], ARGV[1], unix_ms())
return generation
