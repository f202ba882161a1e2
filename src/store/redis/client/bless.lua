-- Blesses a marker as soon as its server is connected. Follows marker.lua.
-- KEYS[1] marker   ARGV[1] a new random generation
-- Answers the generation in force.
return (observe(KEYS[1], ARGV[1], unix_ms()))
