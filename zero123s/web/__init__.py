"""`zero123s web`: a page for making meshes; everything but `page.py` and `server.py` works without gradio."""
