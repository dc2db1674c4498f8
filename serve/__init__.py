"""The endpoint: a Ray Serve application that speaks the OpenAI audio and chat interfaces."""
