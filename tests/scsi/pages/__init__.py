"""Tests of the pages of tape data encryption."""
