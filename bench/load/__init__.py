"""The load on a server: wrk, clients that check each answer, and the images that are sent."""
