"""`zero123s web`: a page for making meshes; everything but `page.py` works without gradio."""
